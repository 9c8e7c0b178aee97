/*
 * What the iommufd selftest of some 6.12 point releases uses and their own headers lack: its source was taken from a newer kernel. Only
 * for them; the dirty-tracking tests need nothing of it from the kernel, and those that do (PASID) fail there.
 */
#define IOMMU_HW_INFO_TYPE_DEFAULT IOMMU_HW_INFO_TYPE_NONE
#define IOMMU_HW_INFO_FLAG_INPUT_TYPE (1 << 0)
#define in_data_type out_data_type
#define MOCK_FLAGS_DEVICE_PASID (1 << 3)
#define MOCK_PASID_WIDTH 20
