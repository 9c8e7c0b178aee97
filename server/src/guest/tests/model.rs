//! The table of mappings against a model that keeps every page by itself.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rustix::io::Errno;

use super::super::testing::memfd;
use super::super::{Access, DmaError, MapRequest};
use super::{PAGE, request, soon, space};

/// Pages of the address space that are used.
const PAGES: u64 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Read,
    Unreachable,
}

#[derive(Debug, Clone)]
enum Step {
    Map(u64, u64, Kind),
    Unmap(u64, u64),
    UnmapAll,
    Check(u64, u64, Access),
}

/// A mapping of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    first: u64,
    pages: u64,
    kind: Kind,
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::Read), Just(Access::Write)]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![4 => Just(Kind::Write), 1 => Just(Kind::Read), 1 => Just(Kind::Unreachable)];
    prop_oneof![
        6 => (0..PAGES, 1..6_u64, kind).prop_map(|(first, pages, kind)| Step::Map(first, pages, kind)),
        4 => (0..PAGES, 1..6_u64).prop_map(|(first, pages)| Step::Unmap(first, pages)),
        1 => Just(Step::UnmapAll),
        8 => (0..(PAGES + 6) * PAGE, 0..8 * PAGE, access())
            .prop_map(|(iova, len, access)| Step::Check(iova, len, access)),
    ]
}

/// What an access gives, byte by byte.
fn expected(model: &BTreeMap<u64, Known>, iova: u64, len: u64, access: Access) -> Result<(), DmaError> {
    for byte in iova..iova + len {
        match (model.get(&(byte / PAGE)).map(|known| known.kind), access) {
            (None, _) => return Err(DmaError::NotMapped(byte)),
            (Some(Kind::Unreachable), _) => return Err(DmaError::Unreachable(byte)),
            (Some(Kind::Read), Access::Write) => return Err(DmaError::Denied(byte)),
            _ => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_table_agrees_with_a_table_of_single_pages(steps in prop::collection::vec(step(), 1..60)) {
        let space = space();
        let mut model = BTreeMap::<u64, Known>::new();
        for step in steps {
            match step {
                Step::Map(first, pages, kind) => {
                    let access = if kind == Kind::Read { Access::Read } else { Access::Write };
                    let whole = request(first * PAGE, pages * PAGE, access, memfd(pages * PAGE));
                    let fd = whole.fd.filter(|_| kind != Kind::Unreachable);
                    let result = space.map(MapRequest { fd, ..whole }).map_err(|error| error.errno());
                    let is_free = (first..first + pages).all(|page| !model.contains_key(&page));
                    prop_assert_eq!(result, if is_free { Ok(()) } else { Err(Errno::EXIST) });
                    if is_free {
                        model.extend((first..first + pages).map(|page| (page, Known { first, pages, kind })));
                    }
                }
                Step::Unmap(first, pages) => {
                    let result = space.unmap(first * PAGE, pages * PAGE, soon()).map_err(|error| error.errno());
                    let known = model.get(&first).map(|known| (known.first, known.pages));
                    let is_known = known == Some((first, pages));
                    prop_assert_eq!(result, if is_known { Ok(()) } else { Err(Errno::NOENT) });
                    if is_known {
                        model.retain(|_, known| known.first != first);
                    }
                }
                Step::UnmapAll => {
                    space.unmap_all(soon()).unwrap();
                    model.clear();
                }
                Step::Check(iova, len, access) => {
                    let expected = expected(&model, iova, len, access);
                    prop_assert_eq!(space.dma().check(iova, len, access), expected);
                    let mut data = vec![0; len as usize];
                    let result = match access {
                        Access::Read => space.dma().read(iova, &mut data),
                        Access::Write => space.dma().write(iova, &data),
                    };
                    prop_assert_eq!(result, expected);
                }
            }
        }
    }
}
