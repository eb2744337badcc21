"""The pods of a node: `manager` finds the task that an event is for, `pod_task` owns one, `report` has its status."""
