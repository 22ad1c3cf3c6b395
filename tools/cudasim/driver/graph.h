// Graphs of work: what capture records, and what a launch queues.
#pragma once

#include "objects.h"

namespace cudasim::driver {

struct Graph;

struct GraphNode : Object {
  Work work;
  std::shared_ptr<Context> context;
  std::vector<NodeRef> dependencies;
  std::weak_ptr<Graph> graph;
};

struct Graph : Object {
  std::vector<NodeRef> nodes;  // every node after those that it depends on
};

NodeRef addNode(const std::shared_ptr<Graph>& graph, std::shared_ptr<Context> context, Work work,
                std::vector<NodeRef> dependencies);
// `node`, or something that it depends on, is `wanted`.
bool reaches(const std::vector<NodeRef>& from, const GraphNode& wanted);

struct GraphExec : Object {
  struct Node {
    Work work;
    std::shared_ptr<Context> context;
    std::vector<size_t> dependencies;  // positions in `nodes`
    bool isLeaf = true;
    size_t lane = 0;
    std::weak_ptr<GraphNode> source;
  };
  std::vector<Node> nodes;
  std::vector<Lane> lanes;  // chains of nodes, so that clocks stay short
  OpRef lastLaunch;         // launches of one executable graph run one after the other
};

}  // namespace cudasim::driver
