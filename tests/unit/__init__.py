"""Tests of parts by themselves: no root, no processes of ours; nothing here takes seconds."""
