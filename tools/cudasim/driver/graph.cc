#include "graph.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "copy.h"
#include "entry.h"
#include "launch.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

NodeRef addNode(const std::shared_ptr<Graph>& graph, std::shared_ptr<Context> context, Work work,
                std::vector<NodeRef> dependencies) {
  auto node = std::make_shared<GraphNode>();
  node->work = std::move(work);
  node->context = std::move(context);
  node->dependencies = std::move(dependencies);
  node->graph = graph;
  graph->nodes.push_back(node);
  return node;
}

bool reaches(const std::vector<NodeRef>& from, const GraphNode& wanted) {
  std::vector<NodeRef> open = from;
  std::unordered_set<const GraphNode*> seen;
  while (!open.empty()) {
    const NodeRef node = open.back();
    open.pop_back();
    if (node.get() == &wanted) return true;
    for (const NodeRef& before : node->dependencies)
      if (seen.insert(before.get()).second) open.push_back(before);
  }
  return false;
}

namespace {

CUresult addNodeEntry(const char* function, CUgraphNode* handle, CUgraph graphHandle, const CUgraphNode* dependencies,
                      size_t count, const std::function<Work(Driver&)>& makeWork) {
  return entry(function, Needs::kContext, [&](Driver& driver) {
    require(handle && (dependencies || count == 0), CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Graph> graph = driver.object<Graph>(graphHandle);
    std::vector<NodeRef> before;
    for (size_t i = 0; i < count; ++i) {
      before.push_back(driver.object<GraphNode>(dependencies[i]));
      require(before.back()->graph.lock() == graph, CUDA_ERROR_INVALID_VALUE, "a node of another graph");
    }
    *handle = driver.handle<CUgraphNode>(addNode(graph, current(), makeWork(driver), std::move(before)));
  });
}

}  // namespace

KernelWork fromNodeParams(Driver& driver, const CUDA_KERNEL_NODE_PARAMS& p) {
  return makeKernelWork(driver, {p.func,
                                 {p.gridDimX, p.gridDimY, p.gridDimZ},
                                 {p.blockDimX, p.blockDimY, p.blockDimZ},
                                 p.sharedMemBytes,
                                 p.kernelParams,
                                 p.extra,
                                 false});
}

}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuGraphCreate(CUgraph* handle, unsigned flags) {
  return entry("cuGraphCreate", Needs::kInit, [&](Driver& driver) {
    require(handle && flags == 0, CUDA_ERROR_INVALID_VALUE);
    *handle = driver.handle<CUgraph>(std::make_shared<Graph>());
  });
}

extern "C" CUresult cuGraphDestroy(CUgraph handle) {
  return entry("cuGraphDestroy", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<Graph> graph = driver.object<Graph>(handle);
    for (const NodeRef& node : graph->nodes) driver.withdraw(*node);
    driver.withdraw(*graph);
  });
}

extern "C" CUresult cuGraphAddKernelNode_v2(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies,
                                            size_t count, const CUDA_KERNEL_NODE_PARAMS* params) {
  return addNodeEntry("cuGraphAddKernelNode", node, graph, dependencies, count, [&](Driver& driver) -> Work {
    require(params != nullptr, CUDA_ERROR_INVALID_VALUE);
    return fromNodeParams(driver, *params);
  });
}

extern "C" CUresult cuGraphAddMemcpyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies,
                                         size_t count, const CUDA_MEMCPY3D* copy, CUcontext context) {
  return addNodeEntry("cuGraphAddMemcpyNode", node, graph, dependencies, count, [&](Driver& driver) -> Work {
    require(copy != nullptr, CUDA_ERROR_INVALID_VALUE);
    CopyWork work = fromMemcpy3D(*copy);
    resolve(driver, *driver.object<Context>(context), work, "cuGraphAddMemcpyNode");
    return work;
  });
}

extern "C" CUresult cuGraphAddMemsetNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies,
                                         size_t count, const CUDA_MEMSET_NODE_PARAMS* p, CUcontext context) {
  return addNodeEntry("cuGraphAddMemsetNode", node, graph, dependencies, count, [&](Driver& driver) -> Work {
    require(p && (p->elementSize == 1 || p->elementSize == 2 || p->elementSize == 4), CUDA_ERROR_INVALID_VALUE);
    const size_t pitch = p->height > 1 ? p->pitch : p->width * p->elementSize;
    const SetWork work{p->dst, pitch, p->value, p->elementSize, p->width, p->height};
    checkSet(driver, *driver.object<Context>(context), work, "cuGraphAddMemsetNode");
    return work;
  });
}

extern "C" CUresult cuGraphAddHostNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies, size_t count,
                                       const CUDA_HOST_NODE_PARAMS* params) {
  return addNodeEntry("cuGraphAddHostNode", node, graph, dependencies, count, [&](Driver&) -> Work {
    require(params && params->fn, CUDA_ERROR_INVALID_VALUE);
    return hostWork(params->fn, params->userData);
  });
}

extern "C" CUresult cuGraphAddEmptyNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* dependencies,
                                        size_t count) {
  return addNodeEntry("cuGraphAddEmptyNode", node, graph, dependencies, count,
                      [](Driver&) -> Work { return EmptyWork{}; });
}

extern "C" CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  return entry("cuGraphGetNodes", Needs::kInit, [&](Driver& driver) {
    require(count != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Graph> graph = driver.object<Graph>(handle);
    if (nodes) {
      for (size_t i = 0; i < *count; ++i)
        nodes[i] = i < graph->nodes.size() ? driver.handle<CUgraphNode>(graph->nodes[i]) : nullptr;
      *count = std::min(*count, graph->nodes.size());
    } else {
      *count = graph->nodes.size();
    }
  });
}

extern "C" CUresult cuGraphGetEdges_v2(CUgraph handle, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* edges,
                                       size_t* count) {
  return entry("cuGraphGetEdges", Needs::kInit, [&](Driver& driver) {
    require(count && (from == nullptr) == (to == nullptr), CUDA_ERROR_INVALID_VALUE);
    size_t found = 0;
    const std::shared_ptr<Graph> graph = driver.object<Graph>(handle);
    for (const NodeRef& node : graph->nodes)
      for (const NodeRef& before : node->dependencies) {
        if (from && found < *count) {
          from[found] = driver.handle<CUgraphNode>(before);
          to[found] = driver.handle<CUgraphNode>(node);
          if (edges) edges[found] = {};
        }
        ++found;
      }
    *count = from ? std::min(*count, found) : found;
  });
}

extern "C" CUresult cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType* type) {
  return entry("cuGraphNodeGetType", Needs::kInit, [&](Driver& driver) {
    require(type != nullptr, CUDA_ERROR_INVALID_VALUE);
    *type = nodeType(driver.object<GraphNode>(handle)->work);
  });
}

extern "C" CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS* params) {
  return entry("cuGraphKernelNodeGetParams", Needs::kInit, [&](Driver& driver) {
    require(params != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<GraphNode> node = driver.object<GraphNode>(handle);
    auto* work = std::get_if<KernelWork>(&node->work);
    require(work != nullptr, CUDA_ERROR_INVALID_VALUE, "the node launches no kernel");
    thread_local std::vector<void*> pointers;  // valid until this thread's next call
    pointers.clear();
    for (const Kernel::Param& param : work->function->kernel->params)
      pointers.push_back(work->params.data() + param.offset);
    *params = {.func = driver.handle<CUfunction>(work->function),
               .gridDimX = work->grid.x,
               .gridDimY = work->grid.y,
               .gridDimZ = work->grid.z,
               .blockDimX = work->block.x,
               .blockDimY = work->block.y,
               .blockDimZ = work->block.z,
               .sharedMemBytes = work->dynamicShared,
               .kernelParams = pointers.data(),
               .extra = nullptr,
               .kern = nullptr,
               .ctx = driver.handle<CUcontext>(node->context)};
  });
}

}  // namespace cudasim::abi
