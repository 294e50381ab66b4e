"""What the SDK calls of TensorRT's Python API: class → member → whether every release must have it.

``all``: called without a look whether it is there. ``some``: found with ``hasattr`` or ``getattr`` first.
"""

from __future__ import annotations

from typing import Literal

Need = Literal["all", "some"]

CALLS: dict[str, dict[str, Need]] = {
    "Logger": {"__init__": "all", "ERROR": "all", "WARNING": "all"},
    "ILogger": {"__init__": "all", "log": "all"},
    "IProgressMonitor": {"phase_start": "some", "step_complete": "some", "phase_finish": "some"},
    "Runtime": {"__init__": "all", "deserialize_cuda_engine": "all", "engine_host_code_allowed": "some"},
    "Builder": {
        "__init__": "all", "create_network": "all", "create_builder_config": "all",
        "create_optimization_profile": "all", "build_serialized_network": "all", "num_DLA_cores": "some",
    },
    "IBuilderConfig": {
        "set_memory_pool_limit": "some", "max_workspace_size": "some", "set_flag": "all", "clear_flag": "all",
        "hardware_compatibility_level": "some", "default_device_type": "some", "DLA_core": "some",
        "can_run_on_DLA": "some", "add_optimization_profile": "all", "create_timing_cache": "some",
        "set_timing_cache": "some", "get_timing_cache": "some", "progress_monitor": "some",
        "num_compute_capabilities": "some", "set_compute_capability": "some",
    },
    "IOptimizationProfile": {"set_shape": "all"},
    "IProfiler": {"__init__": "all", "report_layer_time": "all"},
    "ITimingCache": {"serialize": "all"},
    "IHostMemory": {"nbytes": "all"},
    "INetworkDefinition": {"num_layers": "all", "num_inputs": "all", "get_input": "all", "get_layer": "all"},
    "ILayer": {
        "name": "all", "num_outputs": "all", "get_output": "all", "precision": "some", "set_output_type": "some",
    },
    "ITensor": {"name": "all", "shape": "all", "dtype": "all"},
    "OnnxParser": {"__init__": "all", "parse": "all", "num_errors": "all", "get_error": "all"},
    "ParserError": {"desc": "all", "node": "all", "node_name": "some", "node_operator": "some"},
    "ICudaEngine": {
        "create_execution_context": "all", "num_io_tensors": "all", "num_optimization_profiles": "all",
        "get_tensor_name": "all", "get_tensor_mode": "all", "get_tensor_dtype": "all", "get_tensor_shape": "all",
        "get_tensor_profile_shape": "all", "create_runtime_config": "some",
    },
    "IExecutionContext": {
        "set_optimization_profile_async": "all", "set_input_shape": "all", "set_tensor_address": "all",
        "execute_async_v3": "all", "is_stream_capturable": "some", "profiler": "all",
    },
    "IRuntimeConfig": {
        "set_execution_context_allocation_strategy": "some", "create_runtime_cache": "some",
        "set_runtime_cache": "some",
    },
    "IRuntimeCache": {"serialize": "some", "deserialize": "some"},
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH": "some", "STRONGLY_TYPED": "some"},
    "BuilderFlag": {
        "FP16": "some", "INT8": "some", "TF32": "all", "VERSION_COMPATIBLE": "some", "GPU_FALLBACK": "some",
        "OBEY_PRECISION_CONSTRAINTS": "some", "REQUIRE_USER_ALLOCATION": "some",
    },
    "MemoryPoolType": {"WORKSPACE": "all"},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS": "some", "SAME_COMPUTE_CAPABILITY": "some"},
    "ExecutionContextAllocationStrategy": {"ON_PROFILE_CHANGE": "some"},
    "ComputeCapability": {"SM86": "some"},
    "DeviceType": {"DLA": "all"},
    "DataType": {"FLOAT": "all"},
    "TensorIOMode": {"INPUT": "all"},
}  # fmt: skip

CLASSES = set(CALLS)
