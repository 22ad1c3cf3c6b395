// Memory that is given back is used again at once, so that nothing but the streams' order keeps it from being written
// over; when it is imported before anything that opens a device.
process.env.GRADUS_NO_CUDA_MEMORY_CACHING = '0'
