/* What each part does in a forked child, which holds none of its parent's device memory. Async-signal-safe. */
#ifndef JUPYTER_GPU_FORGET_H
#define JUPYTER_GPU_FORGET_H

void jgpu_forget_charges(void);
void jgpu_forget_pools(void);
void jgpu_forget_virtual_memory(void);
void jgpu_forget_graphs(void);
void jgpu_forget_contexts(void);

#endif
