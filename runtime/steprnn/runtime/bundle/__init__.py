"""What a bundle holds, where it is, and how it is opened: a folder, a zip file or an installed model."""
