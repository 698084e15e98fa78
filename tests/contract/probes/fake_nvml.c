/* A tiny libnvidia-ml.so.1: as much of NVML as the probe uses, steered by the environment.
 *
 * FAKE_GPUS       how many GPUs there are
 * FAKE_INIT       error that nvmlInitWithFlags returns
 * FAKE_LOST_FILE  where a file of this name exists, GPU 1 is lost (NVML_ERROR_GPU_IS_LOST)
 * FAKE_HANG_FILE  while a file of this name exists, readings of GPU 1 do not return
 * FAKE_NO_POWER   power is not supported
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15 };

typedef struct { unsigned index; } *device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;

static struct { unsigned index; } devices[16];

static int number(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int exists(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

static int state(device_t device) {
    while (device->index == 1 && exists("FAKE_HANG_FILE"))
        usleep(1000);
    return device->index == 1 && exists("FAKE_LOST_FILE") ? GPU_IS_LOST : OK;
}

const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "fake error"; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number("FAKE_INIT"); }
int nvmlInit_v2(void) { return number("FAKE_INIT"); }
int nvmlShutdown(void) { return OK; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("FAKE_GPUS"); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if ((int)index >= number("FAKE_GPUS") || index >= 16) return INVALID;
    devices[index].index = index;
    *device = (device_t)&devices[index];
    return OK;
}

int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned size) {
    snprintf(uuid, size, "GPU-00000000-0000-0000-0000-%012u", device->index);
    return OK;
}

int nvmlDeviceGetName(device_t device, char *name, unsigned size) {
    snprintf(name, size, "NVIDIA H100 80GB HBM3");
    return state(device);
}

int nvmlDeviceGetMemoryInfo(device_t device, memory_t *memory) {
    memory->total = 80ULL << 30;
    memory->used = (unsigned long long)(device->index + 1) << 30;
    memory->free = memory->total - memory->used;
    return state(device);
}

int nvmlDeviceGetUtilizationRates(device_t device, utilization_t *utilization) {
    utilization->gpu = 40 + device->index;
    utilization->memory = 20;
    return state(device);
}

int nvmlDeviceGetPowerUsage(device_t device, unsigned *milliwatts) {
    *milliwatts = 350500;
    return getenv("FAKE_NO_POWER") ? NOT_SUPPORTED : state(device);
}

int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 61;
    return state(device);
}
