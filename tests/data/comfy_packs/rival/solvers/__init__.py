OWNER = "rival"
