//! The table against an independent statement of it: the rules of `include/uapi/linux/vfio.h`, as a search.

use std::collections::VecDeque;

use super::*;

/// The single-step arcs that uapi/linux/vfio.h names for `STOP_COPY | P2P | PRE_COPY`.
const SINGLE_STEPS: [(MigState, MigState); 15] = [
    (MigState::Resuming, MigState::Stop),
    (MigState::Stop, MigState::Resuming),
    (MigState::Stop, MigState::StopCopy),
    (MigState::StopCopy, MigState::Stop),
    (MigState::Running, MigState::RunningP2p),
    (MigState::RunningP2p, MigState::Running),
    (MigState::RunningP2p, MigState::Stop),
    (MigState::Stop, MigState::RunningP2p),
    (MigState::Running, MigState::PreCopy),
    (MigState::PreCopy, MigState::Running),
    (MigState::PreCopy, MigState::PreCopyP2p),
    (MigState::PreCopyP2p, MigState::PreCopy),
    (MigState::PreCopyP2p, MigState::RunningP2p),
    (MigState::PreCopyP2p, MigState::StopCopy),
    (MigState::RunningP2p, MigState::PreCopyP2p),
];

/// "Saving group": a stream is being read.
fn is_saving(state: MigState) -> bool {
    matches!(
        state,
        MigState::PreCopy | MigState::PreCopyP2p | MigState::StopCopy
    )
}

/// The shortest path, without its start. A path does not pass through the saving group, unless all of it is one stream.
fn shortest_path(from: MigState, to: MigState) -> Option<Vec<MigState>> {
    let mut found: Vec<Vec<MigState>> = Vec::new();
    let mut paths = VecDeque::from([vec![from]]);
    while let Some(path) = paths.pop_front() {
        let end = *path.last().expect("a path has a start");
        if end == to {
            found.push(path);
            continue;
        }
        for &(_, next) in SINGLE_STEPS.iter().filter(|(start, _)| *start == end) {
            let one_stream = path.iter().all(|&state| is_saving(state)) && is_saving(to);
            let passes_through = path.len() > 1 && is_saving(end) && !one_stream;
            if !path.contains(&next) && !passes_through {
                let mut longer = path.clone();
                longer.push(next);
                paths.push_back(longer);
            }
        }
    }
    let shortest = found.iter().map(Vec::len).min()?;
    found.retain(|path| path.len() == shortest);
    assert_eq!(
        found.len(),
        1,
        "the rules leave one path from {from} to {to}: {found:?}"
    );
    Some(found[0][1..].to_vec())
}

fn walk(from: MigState, to: MigState) -> Result<Vec<MigState>, BadArc> {
    let mut states = Vec::new();
    let mut at = from;
    while let Some(arc) = next_arc(at, to)? {
        assert!(
            SINGLE_STEPS.contains(&(at, arc.to())),
            "{arc:?} is a single step from {at}"
        );
        at = arc.to();
        states.push(at);
        assert!(states.len() <= 4, "the walk from {from} to {to} ends: {states:?}");
    }
    assert_eq!(at, to);
    Ok(states)
}

#[test]
fn every_walk_is_the_path_that_the_rules_select() {
    for from in MigState::ALL {
        for to in MigState::ALL {
            if from == MigState::Error || to == MigState::Error {
                assert_eq!(walk(from, to), Err(BadArc { from, to }));
                continue;
            }
            // The kernel blocks these two by name: the rules alone would lead through a second stream.
            if from == MigState::StopCopy && matches!(to, MigState::PreCopy | MigState::PreCopyP2p) {
                assert_eq!(walk(from, to), Err(BadArc { from, to }));
                continue;
            }
            let expected = shortest_path(from, to).expect("every other state can be reached");
            assert_eq!(
                walk(from, to).as_deref(),
                Ok(&expected[..]),
                "from {from} to {to}"
            );
        }
    }
}

/// The combinations as the comment above the kernel's table lists them.
#[test]
fn combined_transitions_are_the_kernels() {
    use MigState as S;
    let listed: [&[MigState]; 25] = [
        &[S::PreCopy, S::PreCopyP2p, S::StopCopy],
        &[S::PreCopy, S::Running, S::RunningP2p],
        &[S::PreCopy, S::Running, S::RunningP2p, S::Stop],
        &[S::PreCopy, S::Running, S::RunningP2p, S::Stop, S::Resuming],
        &[S::PreCopyP2p, S::RunningP2p, S::Running],
        &[S::PreCopyP2p, S::RunningP2p, S::Stop],
        &[S::PreCopyP2p, S::RunningP2p, S::Stop, S::Resuming],
        &[S::Resuming, S::Stop, S::RunningP2p],
        &[S::Resuming, S::Stop, S::RunningP2p, S::PreCopyP2p],
        &[S::Resuming, S::Stop, S::RunningP2p, S::Running],
        &[S::Resuming, S::Stop, S::RunningP2p, S::Running, S::PreCopy],
        &[S::Resuming, S::Stop, S::StopCopy],
        &[S::Running, S::RunningP2p, S::PreCopyP2p],
        &[S::Running, S::RunningP2p, S::Stop],
        &[S::Running, S::RunningP2p, S::Stop, S::Resuming],
        &[S::Running, S::RunningP2p, S::Stop, S::StopCopy],
        &[S::RunningP2p, S::Running, S::PreCopy],
        &[S::RunningP2p, S::Stop, S::Resuming],
        &[S::RunningP2p, S::Stop, S::StopCopy],
        &[S::Stop, S::RunningP2p, S::PreCopyP2p],
        &[S::Stop, S::RunningP2p, S::Running],
        &[S::Stop, S::RunningP2p, S::Running, S::PreCopy],
        &[S::StopCopy, S::Stop, S::Resuming],
        &[S::StopCopy, S::Stop, S::RunningP2p],
        &[S::StopCopy, S::Stop, S::RunningP2p, S::Running],
    ];
    for states in listed {
        let (from, to) = (states[0], states[states.len() - 1]);
        assert_eq!(walk(from, to).as_deref(), Ok(&states[1..]), "from {from} to {to}");
    }
}

#[test]
fn numbers_are_the_kernels_and_no_others() {
    for (number, state) in MigState::ALL.into_iter().enumerate() {
        let number = u32::try_from(number).expect("eight states");
        assert_eq!(u32::from(state), number);
        assert_eq!(MigState::try_from(number), Ok(state));
    }
    for number in [8, 9, u32::MAX] {
        assert_eq!(MigState::try_from(number), Err(UnknownState(number)));
    }
}
