"""Work that several processes share: how they are started, watched and ended, on one machine or several."""
