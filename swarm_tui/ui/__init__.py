"""The screens. They know the supervisor, the store and the model, and nothing behind them."""
