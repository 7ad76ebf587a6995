"""What music and feelings have to do with each other, without any network: a thesaurus, cues and targets."""
