//! Runs one target, or all in turn, for as long as wanted on a stable toolchain: `ottla-fuzz TARGET SECONDS SEED`, each
//! with a default.
//!
//! Inputs come from `mutate.rs`. An input that breaks a promise is written to a directory `artifacts` beside the
//! sources; given in place of the seconds (`ottla-fuzz TARGET FILE`) it is run once.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ottla_fuzz::{TARGETS, Target, mutate};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = arguments.first().map_or("all", String::as_str);
    let targets: Vec<&Target> = TARGETS.iter().filter(|target| wanted == "all" || target.name == wanted).collect();
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there is no target `{wanted}`; there are: all {}", names.join(" "));
        return ExitCode::FAILURE;
    }
    let how_long = arguments.get(1).map_or("60", String::as_str);
    let Ok(seconds) = how_long.parse() else {
        return match fs::read(how_long) {
            Ok(input) => {
                let taken = if (targets[0].run)(&input) { "taken" } else { "refused" };
                println!("{}: {how_long} is {taken}, and nothing is wrong", targets[0].name);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{how_long} is neither seconds nor a file: {error}");
                ExitCode::FAILURE
            }
        };
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let seed = arguments.get(2).and_then(|seed| seed.parse().ok()).unwrap_or(now);
    let share = Duration::from_secs(seconds) / targets.len() as u32;
    let failed = targets.iter().filter(|target| !run(target, share, seed)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// False if an input was found that breaks a promise.
fn run(target: &Target, how_long: Duration, seed: u64) -> bool {
    let corpus = (target.corpus)();
    let mut random = mutate::Random::new(seed);
    let began = Instant::now();
    let (mut inputs, mut taken) = (0_u64, 0_u64);
    while began.elapsed() < how_long {
        let input = mutate::input(&corpus, &mut random);
        let Ok(was_taken) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) else {
            let dir = Path::new("fuzz/artifacts").join(target.name);
            let path: PathBuf = dir.join(format!("{seed}-{inputs}"));
            let kept = fs::create_dir_all(&dir).and_then(|()| fs::write(&path, &input));
            eprintln!("{}: seed {seed}, input {inputs}: {} ({kept:?})", target.name, path.display());
            return false;
        };
        taken += u64::from(was_taken);
        inputs += 1;
    }
    println!("{}: {inputs} inputs in {} s, {taken} taken, seed {seed}", target.name, began.elapsed().as_secs());
    true
}
