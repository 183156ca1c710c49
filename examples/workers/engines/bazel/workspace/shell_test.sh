#!/bin/sh
echo tested in "$PWD"
