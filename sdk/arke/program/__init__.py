"""What the commands of Arke share: flags, logging, admin pages, addresses. Semi-public."""
