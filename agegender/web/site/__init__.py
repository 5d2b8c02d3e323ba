"""The page as a folder of static files, which predicts in the browser."""
