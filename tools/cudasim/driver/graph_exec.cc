// Executable graphs: instantiation, update in place, launch.
#include <algorithm>
#include <unordered_map>

#include "capture.h"
#include "entry.h"
#include "graph.h"
#include "launch.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

KernelWork fromNodeParams(Driver& driver, const CUDA_KERNEL_NODE_PARAMS& params);

namespace {

// Chains of nodes share a lane: a node goes on in the lane of a dependency that ends there.
void assignLanes(Driver& driver, GraphExec& exec) {
  std::vector<size_t> end;  // the last node of each lane
  for (size_t i = 0; i < exec.nodes.size(); ++i) {
    GraphExec::Node& node = exec.nodes[i];
    size_t lane = 0;
    while (lane < end.size() &&
           std::find(node.dependencies.begin(), node.dependencies.end(), end[lane]) == node.dependencies.end())
      ++lane;
    if (lane == end.size()) {
      end.push_back(i);
      exec.lanes.push_back(driver.scheduler.newLane());
    }
    end[lane] = i;
    node.lane = lane;
  }
}

std::vector<GraphExec::Node> snapshot(const Graph& graph) {
  std::vector<GraphExec::Node> nodes;
  std::unordered_map<const GraphNode*, size_t> position;
  for (const NodeRef& node : graph.nodes) {
    GraphExec::Node copy;
    copy.work = node->work;
    copy.context = node->context;
    copy.source = node;
    for (const NodeRef& before : node->dependencies) {
      copy.dependencies.push_back(position.at(before.get()));
      nodes[copy.dependencies.back()].isLeaf = false;
    }
    position.emplace(node.get(), nodes.size());
    nodes.push_back(std::move(copy));
  }
  return nodes;
}

CUgraphExecUpdateResult compare(const GraphExec::Node& a, const GraphExec::Node& b) {
  if (a.dependencies != b.dependencies) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
  if (a.work.index() != b.work.index()) return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
  if (a.context != b.context) return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  if (const auto* kernel = std::get_if<KernelWork>(&a.work)) {
    const auto& other = std::get<KernelWork>(b.work);
    // Another kernel may take a node's place only within the context; cooperative launches need other resources.
    if (kernel->function->context != other.function->context) return CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED;
    if (kernel->cooperative != other.cooperative) return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  }
  if (const auto* copy = std::get_if<CopyWork>(&a.work)) {
    const auto& other = std::get<CopyWork>(b.work);
    const bool sameKind = copy->to.where == other.to.where && copy->from.where == other.from.where &&
                          copy->to.device == other.to.device && copy->from.device == other.from.device;
    const bool isLinear = copy->height == 1 && copy->depth == 1 && other.height == 1 && other.depth == 1;
    if (!sameKind || !isLinear) return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  }
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

void launchGraph(Driver& driver, const std::shared_ptr<Stream>& stream, GraphExec& exec) {
  if (stream->isLegacy) refuseImplicitCapture(driver, *stream->context);
  refuseOnCapturing(driver, *stream, "cuGraphLaunch");  // child graphs are not simulated
  const auto enqueue = [&](Lane& lane, const OpRef& op, const std::vector<OpRef>& before) {
    op->clock.join(driver.host);
    driver.scheduler.enqueue(lane, op, before);
    return op;
  };
  std::vector<OpRef> before = implicitPredecessors(*stream);
  before.push_back(exec.lastLaunch);
  const OpRef begin = enqueue(stream->lane, makeOp(stream->context, EmptyWork{}, stream->name()), before);
  std::vector<OpRef> ops, leaves;
  for (size_t i = 0; i < exec.nodes.size(); ++i) {
    const GraphExec::Node& node = exec.nodes[i];
    const std::string where = "node " + std::to_string(i) + " of a graph in " + stream->name();
    std::vector<OpRef> after;
    for (const size_t dependency : node.dependencies) after.push_back(ops[dependency]);
    if (after.empty()) after.push_back(begin);
    ops.push_back(enqueue(exec.lanes[node.lane], makeOp(node.context, node.work, where), after));
    if (node.isLeaf) leaves.push_back(ops.back());
  }
  exec.lastLaunch = enqueue(stream->lane, makeOp(stream->context, EmptyWork{}, stream->name()), leaves);
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuGraphInstantiateWithFlags(CUgraphExec* handle, CUgraph graphHandle, unsigned long long flags) {
  return entry("cuGraphInstantiate", Needs::kContext, [&](Driver& driver) {
    constexpr unsigned long long kAutoFree = 1, kNodePriority = 8;
    require(handle != nullptr, CUDA_ERROR_INVALID_VALUE);
    require((flags & ~(kAutoFree | kNodePriority)) == 0, CUDA_ERROR_NOT_SUPPORTED, "launches by the device");
    auto exec = std::make_shared<GraphExec>();
    exec->nodes = snapshot(*driver.object<Graph>(graphHandle));
    assignLanes(driver, *exec);
    *handle = driver.handle<CUgraphExec>(exec);
  });
}

extern "C" CUresult cuGraphExecDestroy(CUgraphExec handle) {
  return entry("cuGraphExecDestroy", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<GraphExec> exec = driver.object<GraphExec>(handle);
    for (Lane& lane : exec->lanes) driver.scheduler.freeLane(lane);
    driver.withdraw(*exec);
  });
}

extern "C" CUresult cuGraphExecUpdate_v2(CUgraphExec handle, CUgraph graphHandle, CUgraphExecUpdateResultInfo* info) {
  return entry("cuGraphExecUpdate", Needs::kContext, [&](Driver& driver) {
    require(info != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<GraphExec> exec = driver.object<GraphExec>(handle);
    const std::shared_ptr<Graph> graph = driver.object<Graph>(graphHandle);
    std::vector<GraphExec::Node> next = snapshot(*graph);
    *info = {CU_GRAPH_EXEC_UPDATE_SUCCESS, nullptr, nullptr};
    if (next.size() != exec->nodes.size()) info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (size_t i = 0; i < next.size() && info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS; ++i) {
      info->result = compare(exec->nodes[i], next[i]);
      if (info->result != CU_GRAPH_EXEC_UPDATE_SUCCESS) info->errorNode = driver.handle<CUgraphNode>(graph->nodes[i]);
    }
    require(info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS, CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    for (size_t i = 0; i < next.size(); ++i) {
      exec->nodes[i].work = std::move(next[i].work);  // launches that are queued keep the old work
      exec->nodes[i].source = next[i].source;
    }
  });
}

extern "C" CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec handle, CUgraphNode nodeHandle,
                                                      const CUDA_KERNEL_NODE_PARAMS* params) {
  return entry("cuGraphExecKernelNodeSetParams", Needs::kContext, [&](Driver& driver) {
    require(params != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<GraphExec> exec = driver.object<GraphExec>(handle);
    const std::shared_ptr<GraphNode> wanted = driver.object<GraphNode>(nodeHandle);
    for (GraphExec::Node& node : exec->nodes) {
      if (node.source.lock() != wanted) continue;
      require(std::holds_alternative<KernelWork>(node.work), CUDA_ERROR_INVALID_VALUE, "the node launches no kernel");
      node.work = fromNodeParams(driver, *params);
      return;
    }
    fail(CUDA_ERROR_INVALID_VALUE, "the node is not in the graph that was instantiated");
  });
}

extern "C" CUresult cuGraphUpload(CUgraphExec handle, CUstream stream) {
  return entry("cuGraphUpload", Needs::kContext, [&](Driver& driver) {
    driver.object<GraphExec>(handle);
    streamOf(driver, stream);  // nothing needs to travel here
  });
}

extern "C" CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
  return entry("cuGraphLaunch", Needs::kContext, [&](Driver& driver) {
    launchGraph(driver, streamOf(driver, stream), *driver.object<GraphExec>(handle));
    ++driver.submitted.graphs;
  });
}

}  // namespace cudasim::abi
