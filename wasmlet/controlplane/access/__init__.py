"""Who makes a request, and whether they may: users, tokens, RBAC rules, the Node authorizer and NodeRestriction."""
