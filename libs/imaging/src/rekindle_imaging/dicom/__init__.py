"""DICOM: series in, segmentations in and out. Needs the extra `dicom`."""
