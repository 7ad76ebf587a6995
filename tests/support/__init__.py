"""What several tests share: small prepared libraries and servers of their own."""
