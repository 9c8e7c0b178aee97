//! What QMP's `query-migrate` answers, as far as a report needs it.

use serde::Deserialize;

/// `MigrationInfo`. What QEMU leaves out in a state is `None`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MigrateInfo {
    /// `setup`, `active`, `device`, `completed`, …; nothing when there was no migration yet.
    pub status: Option<String>,
    /// Counters of memory.
    pub ram: Option<RamInfo>,
    /// Counters of VFIO devices.
    pub vfio: Option<VfioInfo>,
    /// Milliseconds since the migration began, or that it took.
    pub total_time: Option<u64>,
    /// Milliseconds that the guest stood still.
    pub downtime: Option<u64>,
    /// Why it failed.
    pub error_desc: Option<String>,
}

impl MigrateInfo {
    /// Whether the guest stands still for the migration, or goes on at the destination.
    pub fn has_stopped(&self) -> bool {
        matches!(self.status.as_deref(), Some("device" | "completed"))
    }
}

/// `MigrationRAMStats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RamInfo {
    /// Bytes on the wire so far: of everything, not of memory alone.
    pub transferred: u64,
    /// Bytes of memory left to send, as far as QEMU knows.
    pub remaining: u64,
    /// Bytes of all memory.
    pub total: u64,
    /// Pages that were zero and sent as a header.
    pub duplicate: u64,
    /// Pages sent whole.
    pub normal: u64,
    /// Bytes of memory that were sent while the guest ran; without multifd.
    pub precopy_bytes: u64,
    /// Bytes of memory that were sent while it stood still; without multifd.
    pub downtime_bytes: u64,
    /// Bytes that went through multifd's channels.
    pub multifd_bytes: u64,
    /// Pages that became dirty per second.
    pub dirty_pages_rate: u64,
    /// Million bits per second.
    pub mbps: f64,
    /// Passes over memory that have begun while the guest ran. Before version 11, QEMU counted the one after it has stopped as well.
    pub dirty_sync_count: u64,
    /// Bytes of a page.
    pub page_size: u64,
}

impl RamInfo {
    /// Pages left to send.
    pub fn remaining_pages(&self) -> u64 {
        self.remaining / self.page_size.max(1)
    }

    /// Pages sent so far, zeros included.
    pub fn sent_pages(&self) -> u64 {
        self.normal + self.duplicate
    }
}

/// `VfioStats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct VfioInfo {
    /// Bytes of device state so far.
    pub transferred: u64,
}

#[cfg(test)]
mod tests {
    use super::MigrateInfo;

    #[test]
    fn an_answer_of_qemu_is_read() {
        let info: MigrateInfo = serde_json::from_str(
            r#"{"expected-downtime": 300, "status": "active", "setup-time": 7, "total-time": 1234, "remaining": 8192,
                "ram": {"total": 270540800, "postcopy-requests": 0, "dirty-sync-count": 2, "multifd-bytes": 0,
                        "pages-per-second": 32710, "downtime-bytes": 0, "page-size": 4096, "remaining": 8192,
                        "postcopy-bytes": 0, "mbps": 1070.95, "transferred": 46239041,
                        "dirty-sync-missed-zero-copy": 0, "precopy-bytes": 46239041, "duplicate": 55045,
                        "dirty-pages-rate": 12, "normal-bytes": 45686784, "normal": 11154},
                "vfio": {"transferred": 512}}"#,
        )
        .expect("it is what QEMU answers");
        let ram = info.ram.expect("counters of memory");
        assert_eq!(
            (ram.sent_pages(), ram.dirty_sync_count, ram.page_size),
            (66199, 2, 4096)
        );
        assert_eq!(info.vfio.map(|vfio| vfio.transferred), Some(512));
        assert_eq!((info.total_time, info.downtime), (Some(1234), None));
    }

    #[test]
    fn no_migration_is_an_answer_too() {
        let info: MigrateInfo = serde_json::from_str("{}").expect("it is what QEMU answers");
        assert_eq!(info, MigrateInfo::default());
    }
}
