"""Learning rules over populations of vehicles."""
