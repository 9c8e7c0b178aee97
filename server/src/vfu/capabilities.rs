//! The PCI capabilities that the server gives a device, as bytes (PCI Local Bus 3.0, section 6.8; PCI PM 1.2).

use crate::device::{IrqCounts, Msix};

/// Offset of the pending bits in the MSI-X BAR.
const MSIX_PBA_OFFSET: u32 = 0x1000;

/// Power management, version 3, D0 only.
pub(super) fn power_management() -> Vec<u8> {
    const NO_SOFT_RESET: u16 = 1 << 3;
    let mut cap = vec![0x01, 0];
    cap.extend(3_u16.to_le_bytes());
    cap.extend(NO_SOFT_RESET.to_le_bytes());
    cap.extend([0, 0]);
    cap
}

/// MSI with 64-bit addresses and no per-vector masks in config space.
pub(super) fn msi(irqs: IrqCounts) -> Vec<u8> {
    const ADDRESS_64: u16 = 1 << 7;
    let control = ADDRESS_64 | ((irqs.msi.trailing_zeros() as u16) << 1);
    let mut cap = vec![0x05, 0];
    cap.extend(control.to_le_bytes());
    cap.resize(0x18, 0);
    cap
}

/// MSI-X with its table at the start of a BAR.
pub(super) fn msix(msix: Msix) -> Vec<u8> {
    let bar = msix.bar as u32;
    let mut cap = vec![0x11, 0];
    cap.extend((msix.vectors as u16 - 1).to_le_bytes());
    cap.extend(bar.to_le_bytes());
    cap.extend((MSIX_PBA_OFFSET | bar).to_le_bytes());
    cap
}
