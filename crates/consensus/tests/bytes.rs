//! Bytes of strangers: whatever comes in is refused or answered, and the node goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use ottla_consensus::RequestError;
use world::World;

/// What a node says to a request.
fn ask(world: &mut World, index: usize, request: Vec<u8>) -> Option<Result<Bytes, RequestError>> {
    let outcome = Rc::new(RefCell::new(None));
    let told = Rc::clone(&outcome);
    world.core(index).handle(request.into(), move |answer| *told.borrow_mut() = Some(answer));
    world.settle(index);
    outcome.take()
}

#[test]
fn requests_that_are_cut_or_changed_anywhere_are_refused() {
    let mut world = World::new(3, 1);
    world.recorded = Some(Vec::new());
    (0..3).for_each(|index| world.start(index));
    world.core(0).bootstrap();
    world.settle(0);
    world.add(0, 1).unwrap();
    world.add(0, 2).unwrap();
    world.set_voters(0, &[0, 1, 2]).unwrap();
    world.agree(0, b"something to carry");
    assert!(world.run_until(1000, |world| world.status(0).progress.iter().all(|each| each.last > 2)));
    world.run_for(200);
    world.transfer(0, 1).unwrap();
    world.run_for(2000);
    let recorded = world.recorded.take().unwrap();
    let kinds: std::collections::BTreeSet<u8> = recorded.iter().map(|request| request[8]).collect();
    assert!([1, 2, 5].iter().all(|kind| kinds.contains(kind)), "kinds of requests: {kinds:?}");
    let mut seen = std::collections::BTreeSet::new();
    for request in recorded.iter().filter(|request| seen.insert((request[8], request.len()))) {
        for to in 0..3 {
            for len in 0..request.len() {
                let answer = ask(&mut world, to, request[..len].to_vec());
                assert!(matches!(answer, Some(Err(_))), "cut at {len}: {answer:?}");
            }
            for bit in 0..8 * request.len() {
                let mut changed = request.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                let answer = ask(&mut world, to, changed);
                assert!(matches!(answer, Some(Err(_))), "bit {bit} changed: {answer:?}");
            }
            let mut longer = request.to_vec();
            longer.push(0);
            assert!(matches!(ask(&mut world, to, longer), Some(Err(_))));
        }
    }
    world.check_converged(&[0, 1, 2]);
}

#[test]
fn requests_of_noise_are_refused() {
    let mut world = World::formed(1, 2);
    for len in 0..200 {
        let noise: Vec<u8> = (0..len).map(|_| world.draw(256) as u8).collect();
        assert!(matches!(ask(&mut world, 0, noise), Some(Err(_))));
    }
    world.agree(0, b"and on");
}
