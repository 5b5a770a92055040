"""`dock`: the containers of this machine from a shell, with docker's verbs."""
