"""Programs for devices, and the latency of architectures on them.

Here belongs what exports a model for a runtime (`artifact.py`, `ranker.py`, on `lowering.py`), times it (`timing.py`,
`host.py`, `android.py`) and predicts the latency of architectures that were not timed (`latency.py`). The deployed form
of a block is stated by the block (`Block.deploy`) and put together in `rankitect.models.deployed`; what tasks and
controllers may ask of a device is a protocol in `rankitect.contracts.device`.

Enter through `devices.py`, which has one class for each value of `device=`.
"""
