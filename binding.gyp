# The same build for node-gyp and prebuildify: CMakeLists.txt holds the one list of sources.
{
  "targets": [
    {
      "target_name": "gradus",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/gradus.node", "build/Release/gradus_cpu.so"],
          "action": ["node", "scripts/buildNative.mjs"]
        }
      ]
    }
  ]
}
