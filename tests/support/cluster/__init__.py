"""A node for rendered manifests: pods as processes in namespaces of their own, Services, network policies, probes."""
