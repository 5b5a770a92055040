"""`make curves`: how the store and its peers go on as keys, values, clients, members and watchers grow."""
