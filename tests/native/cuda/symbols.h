/* All that the stand-in has, of CUDA 12 and 13, and of 13 alone. */
#ifndef STANDIN_SYMBOLS_H
#define STANDIN_SYMBOLS_H

#define STANDIN_SYMBOLS(X) \
    X(cuArray3DCreate) X(cuArray3DCreate_v2) X(cuArrayCreate) X(cuArrayCreate_v2) X(cuArrayDestroy) \
    X(cuCtxCreate_v2) X(cuCtxCreate_v4) X(cuCtxDestroy) X(cuCtxDestroy_v2) X(cuCtxGetApiVersion) \
    X(cuCtxGetCurrent) X(cuCtxGetDevice) X(cuCtxGetFlags) X(cuCtxGetId) X(cuCtxGetStreamPriorityRange) \
    X(cuCtxPopCurrent_v2) X(cuCtxPushCurrent_v2) X(cuCtxSetCurrent) X(cuCtxSynchronize) X(cuDeviceGet) \
    X(cuDeviceGetAttribute) X(cuDeviceGetCount) X(cuDeviceGetDefaultMemPool) X(cuDeviceGetGraphMemAttribute) \
    X(cuDeviceGetMemPool) X(cuDeviceGetName) X(cuDeviceGetPCIBusId) X(cuDeviceGetUuid) X(cuDeviceGetUuid_v2) \
    X(cuDeviceGraphMemTrim) X(cuDevicePrimaryCtxGetState) X(cuDevicePrimaryCtxRelease) \
    X(cuDevicePrimaryCtxRelease_v2) X(cuDevicePrimaryCtxReset) X(cuDevicePrimaryCtxReset_v2) \
    X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxSetFlags_v2) X(cuDeviceSetMemPool) X(cuDeviceTotalMem) \
    X(cuDeviceTotalMem_v2) X(cuDriverGetVersion) X(cuEventCreate) X(cuEventDestroy_v2) X(cuEventQuery) \
    X(cuEventRecord) X(cuEventSynchronize) X(cuGetErrorName) X(cuGetErrorString) X(cuGetExportTable) \
    X(cuGetProcAddress) \
    X(cuGetProcAddress_v2) X(cuGraphAddChildGraphNode) X(cuGraphAddMemAllocNode) X(cuGraphAddMemFreeNode) \
    X(cuGraphChildGraphNodeGetGraph) X(cuGraphCreate) X(cuGraphDestroy) X(cuGraphExecDestroy) \
    X(cuGraphGetNodes) X(cuGraphInstantiate) X(cuGraphInstantiateWithFlags) X(cuGraphInstantiateWithParams) \
    X(cuGraphInstantiateWithParams_ptsz) X(cuGraphInstantiate_v2) X(cuGraphLaunch) X(cuGraphLaunch_ptsz) \
    X(cuGraphMemAllocNodeGetParams) X(cuGraphNodeGetType) X(cuGraphUpload) X(cuGraphUpload_ptsz) X(cuInit) \
    X(cuMemAddressFree) X(cuMemAddressReserve) X(cuMemAlloc) X(cuMemAllocAsync) X(cuMemAllocAsync_ptsz) \
    X(cuMemAllocFromPoolAsync) X(cuMemAllocFromPoolAsync_ptsz) X(cuMemAllocManaged) X(cuMemAllocPitch) \
    X(cuMemAllocPitch_v2) X(cuMemAlloc_v2) X(cuMemCreate) X(cuMemExportToShareableHandle) X(cuMemFree) \
    X(cuMemFreeAsync) X(cuMemFreeAsync_ptsz) X(cuMemFreeHost) X(cuMemFree_v2) X(cuMemGetAddressRange_v2) \
    X(cuMemGetAllocationGranularity) X(cuMemGetInfo) X(cuMemGetInfo_v2) X(cuMemHostAlloc) \
    X(cuMemImportFromShareableHandle) X(cuMemMap) X(cuMemPoolCreate) X(cuMemPoolDestroy) \
    X(cuMemPoolGetAttribute) X(cuMemPoolSetAccess) X(cuMemPoolSetAttribute) X(cuMemPoolTrimTo) \
    X(cuMemRelease) X(cuMemRetainAllocationHandle) X(cuMemSetAccess) X(cuMemUnmap) X(cuMemcpyDtoH_v2) \
    X(cuMemcpyHtoD_v2) X(cuMemsetD8_v2) X(cuMipmappedArrayCreate) X(cuMipmappedArrayDestroy) \
    X(cuPointerGetAttribute) X(cuStreamBeginCapture_v2) X(cuStreamCreate) X(cuStreamCreateWithPriority) \
    X(cuStreamDestroy_v2) X(cuStreamEndCapture) X(cuStreamGetCtx) X(cuStreamGetCtx_ptsz) X(cuStreamGetDevice) \
    X(cuStreamGetFlags) X(cuStreamGetId) X(cuStreamGetPriority) X(cuStreamIsCapturing) \
    X(cuStreamIsCapturing_ptsz) X(cuStreamQuery) X(cuStreamSynchronize) X(cuStreamSynchronize_ptsz) \
    X(cuStreamWaitEvent) X(cuThreadExchangeStreamCaptureMode)

#if STANDIN_VERSION >= 13000
#define STANDIN_SYMBOLS_OF_13(X) \
    X(cuCtxGetDevice_v2) X(cuCtxSynchronize_v2) X(cuMemGetDefaultMemPool) X(cuMemGetMemPool)
#else
#define STANDIN_SYMBOLS_OF_13(X)
#endif

#endif
