-- May this TPP call? As a gateway asks before each call.
wrk.path = "/api/v1/quota/tpp-12345/check"
