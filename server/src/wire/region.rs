//! `VFIO_USER_REGION_WRITE`, as far as the server looks at it before libvfio-user does.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_user_region_access` without its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct RegionAccess {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    /// Bytes.
    pub(crate) count: u32,
}

/// The region that is config space.
pub(crate) const CONFIG_REGION: u32 = 7;
