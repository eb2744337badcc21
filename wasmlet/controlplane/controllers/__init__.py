"""The controllers, as in kube-controller-manager: of nodes, workloads, volumes, budgets and custom resources."""
