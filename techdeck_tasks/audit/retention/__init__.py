"""How the log ends: months are archived and dropped, data keys destroyed; a legal hold stops both."""
