int function(void) { return 1; }
