"""What mho costs against plain torch on this machine: time as a ratio, memory in MB."""
