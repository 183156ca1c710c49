#!/bin/sh
sleep 60.4242
