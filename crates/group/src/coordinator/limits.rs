//! What is refused before anybody looks for the group.

use ottla_metadata::config::GroupConfig;

use super::Context;
use crate::{Command, DeleteOffsets, Heartbeat, Join, JoinRefusal, Leave, Refusal, Reply, Sync};

/// Whether a command makes sense on its own, and can be written down.
pub(super) fn check(ctx: &Context<'_>, command: &Command) -> Result<(), Box<Reply>> {
    let result = match command {
        Command::Join(Join { group, .. })
        | Command::Sync(Sync { group, .. })
        | Command::Heartbeat(Heartbeat { group, .. })
        | Command::Leave(Leave { group, .. })
        | Command::DeleteOffsets(DeleteOffsets { group, .. })
            if group.is_empty() =>
        {
            Err(Refusal::InvalidGroupId)
        }
        _ if !fits(command) => Err(Refusal::InvalidRequest("a name is longer than 32767 bytes".to_owned())),
        Command::Join(join) if !is_modest(join) => {
            let why = format!("a member may have {PROTOCOLS_MAX} protocols, of {PROTOCOL_BYTES_MAX} bytes together");
            Err(Refusal::InvalidRequest(why))
        }
        Command::Join(join) if !is_session_timeout(ctx.config, join.session_timeout_ms) => {
            Err(Refusal::InvalidSessionTimeout)
        }
        _ => Ok(()),
    };
    result.map_err(|refusal| Box::new(refused(command, refusal)))
}

fn is_session_timeout(config: &GroupConfig, timeout_ms: i32) -> bool {
    (config.classic_min_session_timeout_ms..=config.classic_max_session_timeout_ms).contains(&timeout_ms)
}

/// A record has a 16-bit length for most names.
fn fits(command: &Command) -> bool {
    let fits = |text: &str| i16::try_from(text.len()).is_ok();
    let all_fit = |texts: &[Option<&str>]| texts.iter().flatten().all(|text| fits(text));
    match command {
        Command::Join(join) => {
            // The id that it gets is one of these and a UUID.
            let names = [Some(&*join.client_id), join.instance.as_deref()];
            names.iter().flatten().all(|name| fits(name) && name.len() <= MAX_PREFIX)
                && all_fit(&[Some(&join.group), Some(&join.member), Some(&join.client_host), Some(&join.protocol_type)])
                && join.protocols.iter().all(|(name, _)| fits(name))
        }
        Command::ConsumerHeartbeat(heartbeat) => all_fit(&[
            Some(&heartbeat.group),
            Some(&heartbeat.member),
            heartbeat.instance.as_deref(),
            heartbeat.topics_regex.as_deref(),
            Some(&heartbeat.client_id),
            Some(&heartbeat.client_host),
        ]),
        Command::CommitOffsets(commit) => {
            fits(&commit.group) && commit.offsets.iter().all(|offset| fits(&offset.topic))
        }
        _ => true,
    }
}

/// The most protocols of a member: all of them are compared with all of each other member. Clients have three.
const PROTOCOLS_MAX: usize = 100;
/// The most bytes of them, which stay in memory as long as the member: four times what a record may hold of the one
/// that is chosen.
const PROTOCOL_BYTES_MAX: usize = 4 << 20;

fn is_modest(join: &Join) -> bool {
    let bytes: usize = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
    join.protocols.len() <= PROTOCOLS_MAX && bytes <= PROTOCOL_BYTES_MAX
}

/// The longest name that has room for a `-` and a UUID behind it.
const MAX_PREFIX: usize = i16::MAX as usize - 37;

fn refused(command: &Command, refusal: Refusal) -> Reply {
    match command {
        Command::Join(join) => Reply::Join(Err(JoinRefusal { refusal, member: join.member.clone() })),
        Command::Sync(_) => Reply::Sync(Err(refusal)),
        Command::Heartbeat(_) => Reply::Heartbeat(Err(refusal)),
        Command::Leave(_) => Reply::Leave(Err(refusal)),
        Command::ConsumerHeartbeat(_) => Reply::ConsumerHeartbeat(Err(refusal)),
        Command::DeleteOffsets(_) => Reply::DeleteOffsets(Err(refusal)),
        Command::DeleteGroup(_) => Reply::DeleteGroup(Err(refusal)),
        Command::CommitOffsets(_) | Command::TopicsDeleted(_) | Command::TimePassed => {
            Reply::CommitOffsets(Err(refusal))
        }
    }
}
