"""A compact trainer of denoisers: EDM, VP and PFGM++, with the networks of `models`."""
