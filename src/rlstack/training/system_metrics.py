"""Statistics of the machine."""

from contextlib import suppress

import psutil
import torch

from ..common.types import Stats


def memory_stats(device: torch.device) -> Stats:
    """Return free and total memory of the device, bytes, and the share in use, percent."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
    return {
        "memory/free": float(free),
        "memory/total": float(total),
        "memory/percent": 100 * (1 - free / total),
    }


def system_stats(device: torch.device) -> Stats:
    """Return what the machine is busy with, under the names that MLflow's pages show as system metrics."""
    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    stats = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    if network is not None:
        stats["system/network_receive_megabytes"] = network.bytes_recv / 1e6
        stats["system/network_transmit_megabytes"] = network.bytes_sent / 1e6
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        prefix = f"system/gpu_{device.index or 0}_"
        stats[f"{prefix}memory_usage_megabytes"] = (total - free) / 1e6
        stats[f"{prefix}memory_usage_percentage"] = 100 * (1 - free / total)
        # torch asks NVIDIA's library, which needs a package of its own.
        with suppress(ModuleNotFoundError):
            stats[f"{prefix}utilization_percentage"] = float(torch.cuda.utilization(device))
    return stats
