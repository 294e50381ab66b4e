"""The signal path that training and device share: resampling, framing, log-mel features, sample clock."""
