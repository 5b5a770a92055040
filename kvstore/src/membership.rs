//! Members, learners, promotion, removal.
