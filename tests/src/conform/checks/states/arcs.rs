//! Which ways there are between migration states, from the rules and not from a table: the specification's arcs, the shortest
//! path along them, and what a path must not pass through.

use std::collections::{HashMap, VecDeque};

use crate::wire::{MigState, consts};

use MigState::{Error, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};

/// The way between two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// They are the same.
    Stay,
    /// Through these states, the last one included.
    By(Vec<MigState>),
    /// There is none.
    Forbidden,
}

/// Whether a device with these flags (`consts::MIGRATION_*`) has the state.
pub(super) fn is_offered(state: MigState, flags: u64) -> bool {
    let p2p = flags & consts::MIGRATION_P2P != 0;
    let pre_copy = flags & consts::MIGRATION_PRE_COPY != 0;
    match state {
        RunningP2p => p2p,
        PreCopy => pre_copy,
        PreCopyP2p => p2p && pre_copy,
        Error | Stop | Running | StopCopy | Resuming => true,
    }
}

/// The arcs of `linux/vfio.h`, with the P2P states.
const WITH_P2P: [(MigState, MigState); 15] = [
    (Running, RunningP2p),
    (RunningP2p, Running),
    (RunningP2p, Stop),
    (Stop, RunningP2p),
    (Stop, StopCopy),
    (StopCopy, Stop),
    (Stop, Resuming),
    (Resuming, Stop),
    (Running, PreCopy),
    (PreCopy, Running),
    (PreCopy, PreCopyP2p),
    (PreCopyP2p, PreCopy),
    (RunningP2p, PreCopyP2p),
    (PreCopyP2p, RunningP2p),
    (PreCopyP2p, StopCopy),
];

/// The arcs of the specification, which has no P2P states.
const WITHOUT_P2P: [(MigState, MigState); 9] = [
    (Running, Stop),
    (Stop, Running),
    (Stop, StopCopy),
    (StopCopy, Stop),
    (Stop, Resuming),
    (Resuming, Stop),
    (Running, PreCopy),
    (PreCopy, Running),
    (PreCopy, StopCopy),
];

fn is_saving(state: MigState) -> bool {
    matches!(state, PreCopy | PreCopyP2p | StopCopy)
}

/// The way from one state to another for a device with these flags.
pub(super) fn path(from: MigState, to: MigState, flags: u64) -> Path {
    if !is_offered(from, flags) || !is_offered(to, flags) || from == Error || to == Error {
        return Path::Forbidden;
    }
    if from == to {
        return Path::Stay;
    }
    // Explicitly not allowed, though arcs lead there.
    if from == StopCopy && matches!(to, PreCopy | PreCopyP2p) {
        return Path::Forbidden;
    }
    shortest(from, to, flags).map_or(Path::Forbidden, Path::By)
}

/// The shortest path along the arcs whose inner states do not save, unless saving goes on from the first to the last.
fn shortest(from: MigState, to: MigState, flags: u64) -> Option<Vec<MigState>> {
    let arcs: &[(MigState, MigState)] = if flags & consts::MIGRATION_P2P != 0 {
        &WITH_P2P
    } else {
        &WITHOUT_P2P
    };
    let may_pass = |state| !is_saving(state) || (is_saving(from) && is_saving(to));
    let mut before: HashMap<MigState, MigState> = HashMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(state) = queue.pop_front() {
        if state == to {
            return Some(walk_back(&before, from, to));
        }
        if state != from && !may_pass(state) {
            continue;
        }
        for (_, next) in arcs.iter().filter(|(start, _)| *start == state) {
            if *next != from && is_offered(*next, flags) && !before.contains_key(next) {
                before.insert(*next, state);
                queue.push_back(*next);
            }
        }
    }
    None
}

fn walk_back(before: &HashMap<MigState, MigState>, from: MigState, to: MigState) -> Vec<MigState> {
    let mut path = vec![to];
    let mut state = to;
    while let Some(previous) = before.get(&state).filter(|previous| **previous != from) {
        path.push(*previous);
        state = *previous;
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const P2P: u64 = consts::MIGRATION_P2P;
    const PRE_COPY: u64 = consts::MIGRATION_PRE_COPY;

    #[test]
    fn combinations_take_the_shortest_way() {
        let by = |from, to, flags| match path(from, to, flags) {
            Path::By(states) => states,
            other => panic!("{from} to {to}: {other:?}"),
        };
        assert_eq!(by(Running, StopCopy, 0), [Stop, StopCopy]);
        assert_eq!(by(Running, StopCopy, P2P), [RunningP2p, Stop, StopCopy]);
        assert_eq!(by(Running, Stop, P2P | PRE_COPY), [RunningP2p, Stop]);
        assert_eq!(by(PreCopy, StopCopy, PRE_COPY), [StopCopy]);
        assert_eq!(by(PreCopy, StopCopy, P2P | PRE_COPY), [PreCopyP2p, StopCopy]);
        assert_eq!(
            by(PreCopy, Resuming, P2P | PRE_COPY),
            [Running, RunningP2p, Stop, Resuming]
        );
        assert_eq!(by(StopCopy, Resuming, P2P | PRE_COPY), [Stop, Resuming]);
        assert_eq!(by(Resuming, Running, 0), [Stop, Running]);
    }

    #[test]
    fn only_the_ways_back_from_stop_copy_are_forbidden() {
        let mut forbidden = Vec::new();
        for from in MigState::ALL {
            for to in MigState::ALL {
                if from != Error && to != Error && path(from, to, P2P | PRE_COPY) == Path::Forbidden {
                    forbidden.push((from, to));
                }
            }
        }
        assert_eq!(forbidden, [(StopCopy, PreCopy), (StopCopy, PreCopyP2p)]);
    }

    #[test]
    fn states_that_are_not_offered_are_not_reached() {
        for flags in [0, P2P, PRE_COPY] {
            for state in MigState::ALL
                .into_iter()
                .filter(|state| !is_offered(*state, flags))
            {
                assert_eq!(path(Running, state, flags), Path::Forbidden, "{state}");
            }
        }
        for to in [Stop, StopCopy, Resuming] {
            assert_ne!(path(Running, to, 0), Path::Forbidden, "{to}");
        }
    }
}
