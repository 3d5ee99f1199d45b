"""The service over gRPC: volumes in and out, models, predictions."""

import numpy as np
import SimpleITK as sitk


def test_predicts_a_registered_volume(running, phantom, package, tmp_path):
    """Upload, register, activate and predict give exactly the phantom's organs in the project's label values."""
    image = running.upload(phantom.file(tmp_path)).volume
    model = running.register(running.upload_package(*package))
    running.activate(model)
    (answer,) = running.predict(image.volume_id)
    header, mask = running.download(answer.prediction.mask_volume_id, tmp_path)
    assert "prediction" == answer.WhichOneof("outcome")
    assert np.array_equal(phantom.mask, sitk.GetArrayFromImage(mask))
    assert answer.prediction.mask_digest == header.volume.canonical_digest
