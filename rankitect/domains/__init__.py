"""What a kind of model needs to be searched: data, task, pretrained weights, training and costs, joined."""
