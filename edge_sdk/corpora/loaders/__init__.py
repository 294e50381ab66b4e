"""One loader per corpus."""
