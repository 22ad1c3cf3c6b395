// CUDA devices under the names that PyTorch has for them.

import { cudaDevice, type Device, type DeviceName } from '../device'
import { binding, check, nativeError, scratch } from '../native'
import { memory } from './memoryAccount'

/** A CUDA device, its name or its index. None: the default device where that is a CUDA device, else `cuda:0`. */
type Where = DeviceName | Device | number

/** What a device is made of.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.get_device_properties.html */
export interface DeviceProperties {
  /** Such as 'NVIDIA A100-SXM4-80GB'. */
  name: string
  /** Compute capability, before the dot. */
  major: number
  /** Compute capability, behind the dot. */
  minor: number
  /** Bytes. */
  totalMemory: number
  multiProcessorCount: number
  warpSize: number
  maxThreadsPerMultiProcessor: number
  regsPerMultiprocessor: number
  /** Bytes. */
  sharedMemoryPerMultiprocessor: number
  /** Bytes that a kernel which asks for them can have in a block. */
  sharedMemoryPerBlockOptin: number
  /** Bytes. */
  l2CacheSize: number
}

/** @internal What the driver says: the devices, or why there are none. */
export interface CudaDescription {
  /** Version of the driver's API, such as '13.0'; absent without a driver. */
  driver?: string
  devices: DeviceProperties[]
  /** Architectures that kernels were built for; empty where the addon was built without nvcc. */
  kernels: string[]
  /** Why there is no device, and what to do about it. */
  problem?: string
}

/** @internal Looks at the driver; opens no device. */
export function describeCuda(): CudaDescription {
  const text = binding.describeCuda()
  if (typeof text !== 'string') throw nativeError(text)
  return JSON.parse(text)
}

/** @internal One line on the library for products, which this loads: its version, or that there is none. */
export function describeBlas(): string {
  const text = binding.describeBlas()
  if (typeof text !== 'string') throw nativeError(text)
  return text
}

/** @internal The same on the library for collectives. */
export function describeNccl(): string {
  const text = binding.describeNccl()
  if (typeof text !== 'string') throw nativeError(text)
  return text
}

/** @internal The kernels in this build as they are embedded, by file name: a PTX a family, and cubins if there are any. */
export function cudaImages(): Record<string, Uint8Array> {
  const images = binding.cudaImages()
  if (Array.isArray(images)) throw nativeError(images)
  return images
}

/** Whether there is a CUDA device, and kernels for it in this build. Never throws.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.is_available.html
 *  @example cuda.isAvailable() */
export function isAvailable(): boolean {
  return deviceCount() > 0
}

/** Number of CUDA devices; 0 without a driver.
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.device_count.html
 *  @example cuda.deviceCount() */
export function deviceCount(): number {
  const { devices, kernels } = describeCuda()
  return kernels.length === 0 ? 0 : devices.length
}

/** Name of a device, such as 'NVIDIA A100-SXM4-80GB'.
 *  @throws DeviceError when there is no such device */
export function getDeviceName(device?: Where): string {
  const { index } = cudaDevice('cuda.getDeviceName', device)
  return describeCuda().devices[index]!.name
}

/** Compute capability of a device, such as [8, 0].
 *  @throws DeviceError when there is no such device */
export function getDeviceCapability(device?: Where): [major: number, minor: number] {
  const { index } = cudaDevice('cuda.getDeviceCapability', device)
  const { major, minor } = describeCuda().devices[index]!
  return [major, minor]
}

/** Name, compute capability, memory and multiprocessors of a device.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.get_device_properties.html */
export function getDeviceProperties(device?: Where): DeviceProperties {
  const { index } = cudaDevice('cuda.getDeviceProperties', device)
  return describeCuda().devices[index]!
}

/** Bytes that the driver could still give, to this process or another, and all bytes of the device. What is reserved for
 *  reuse counts as given, see `emptyCache`.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.mem_get_info.html */
export function memGetInfo(device?: Where): [free: number, total: number] {
  check(binding.cudaMemory(cudaDevice('cuda.memGetInfo', device)._code))
  return [scratch[0]!, scratch[1]!]
}

export { Event, type EventOptions } from './event'
export { CUDAGraph } from './graph'
export * as nvtx from './nvtx'

/** Waits, without blocking the event loop, until everything queued on the device has run.
 *  @throws DeviceError when there is no such CUDA device; the first error of an operation of this device that failed since
 *  the last wait. What came to it from a failure elsewhere is for that device to tell, and for who reads it
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.synchronize.html */
export async function synchronize(device?: Where): Promise<void> {
  await cudaDevice('cuda.synchronize', device).synchronize()
}

/** Bytes held by live tensors.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.memory_allocated.html */
export const memoryAllocated = (device?: Where): number => memory.allocated(cudaDevice('cuda.memoryAllocated', device))

/** Most bytes that were held since the start or `resetPeakMemoryStats`.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.max_memory_allocated.html */
export const maxMemoryAllocated = (device?: Where): number =>
  memory.maxAllocated(cudaDevice('cuda.maxMemoryAllocated', device))

/** Bytes held from the driver, for live tensors and for reuse.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.memory_reserved.html */
export const memoryReserved = (device?: Where): number => memory.reserved(cudaDevice('cuda.memoryReserved', device))

/** Starts `maxMemoryAllocated` anew.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.reset_peak_memory_stats.html */
export const resetPeakMemoryStats = (device?: Where): void =>
  memory.resetPeak(cudaDevice('cuda.resetPeakMemoryStats', device))

/** Gives what is reserved and not in use back to the driver.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.empty_cache.html */
export const emptyCache = (device?: Where): void => memory.trim(cudaDevice('cuda.emptyCache', device))

/** The account as a table, in MiB.
 *  @throws DeviceError when there is no such CUDA device
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.memory_summary.html */
export const memorySummary = (device?: Where): string => memory.summary(cudaDevice('cuda.memorySummary', device))
