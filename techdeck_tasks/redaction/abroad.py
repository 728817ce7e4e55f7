"""Labels of particulars in other languages than English; see `particulars`, whose values they share.

German, French, Spanish, Italian, Portuguese and Dutch, and for dates of birth a few more: what a hospital
abroad writes into the columns of its exports.
"""

from __future__ import annotations

from techdeck_tasks.redaction.particulars import DATE, JOINT, NUMBER, is_number
from techdeck_tasks.redaction.rule import Rule, matching

_NUMBERED = r"""(?:
    (?:patienten|krankenakten|krankenkassen|kranken|akten|fall|versicherten|versicherungs|sozialversicherungs
      |rentenversicherungs|konto|kunden|mitglieds|personalausweis|ausweis|reisepass|f(?:ü|ue)hrerschein|telefon
      |handy|mobil|mobilfunk|ruf|steuer|steueridentifikations|ger(?:ä|ae)te|serien|implantat)
    -?(?:nummer|nr\.?|id|kennung)
  | aktenzeichen | kennzeichen | reisepass | personalausweis | f(?:ü|ue)hrerschein | telefon | handy
  | (?:num[ée]ro|n[úu]mero|num|nummer|n[°ºo]\.?)[ _]
    (?:(?:de|du|do|da|del|della|di|van)[ _] | d')?
    (?:dossier|compte|passeport|patient|permis|t[ée]l[ée]phone|s[ée]curit[ée][ _]sociale|assur[ée]
      |historia|cuenta|pasaporte|paciente|licencia|seguridad[ _]social|p[óo]liza|afiliaci[óo]n|c[ée]dula
      |paziente|conto|passaporto|patente|tel[ée]fono|tessera|cartella|polizza
      |conta|passaporte|prontu[áa]rio|carteira|telefone|utente|ap[óo]lice|rekening|paspoort|pati[ëe]nt|rijbewijs)
  | passeport | pasaporte | passaport[oe] | paspoort | permis[ ]de[ ]conduire | permiso[ ]de[ ]conducir
  | t[ée]l[ée]phone | tel[ée]fono | telefone | m[óo]vil | celular | cellulare
  | historia[ _]cl[íi]nica | cartella[ _]clinica | tessera[ _]sanitaria | codice[ _]fiscale | prontu[áa]rio
  | (?:pati[ëe]nt|rekening|telefoon|rijbewijs|polis)nummer
)(?![^\W\d_])"""
# Alone in ASCII: of "numéro" the words "num" and "ro" are seen.
_NUMBER_WORDS = (
    "aktenzeichen", "ausweisnummer", "cartella", "celular", "cellulare", "codice", "fallnr", "fallnummer",
    "fuehrerschein", "handy", "handynummer", "historia", "hrerschein", "hrerscheinnummer",
    "implantatnummer", "kennzeichen", "kontonr", "kontonummer", "krankenaktennummer",
    "krankenkassennummer", "krankennummer", "kundennummer", "mero", "mitgliedsnummer", "mobilfunknummer",
    "mobilnummer", "movil", "num", "numero", "nummer", "paspoort", "pasaporte", "passaporte",
    "passaporto", "passeport", "patientenid", "patientennr", "patientennummer", "patientnummer", "permis",
    "permiso", "personalausweis", "personalausweisnummer", "phone", "polisnummer", "prontu", "prontuario",
    "reisepass", "reisepassnummer", "rekeningnummer", "rentenversicherungsnummer", "rijbewijsnummer",
    "rufnummer", "seriennummer", "sozialversicherungsnummer", "steuer", "steueridentifikationsnummer",
    "steuernummer", "telefon", "telefone", "telefonnummer", "telefono", "telefoonnummer", "tel",
    "tessera", "versichertennummer", "versicherungsnummer", "vil",
)  # fmt: skip

_DATED = r"""(?:
    (?:geburts|aufnahme|entlassungs|sterbe|todes|behandlungs|operations)(?:datum|tag)
  | geboren(?:[ ]am)? | geb\.(?:[ ]am)? | verstorben(?:[ ]am)? | n[ée]e?[ ]le | d[ée]c[ée]d[ée]e?[ ]le
  | date[ _](?:de[ _]|d')(?:naissance|d[ée]c[èe]s|sortie|admission|consultation|hospitalisation)
  | fecha[ _]de[ _](?:nacimiento|ingreso|alta|defunci[óo]n|fallecimiento|consulta) | nacid[oa](?:[ ]el)?
  | data[ _](?:di|de|da)[ _](?:nascita|nascimento|ricovero|dimissione|decesso|[óo]bito|alta|admiss[ãa]o)
  | nat[oa][ ]il | nascid[oa](?:[ ]em)? | geboortedatum | opnamedatum | overlijdensdatum
  | f[øo]dselsdato | f[öo]delsedatum | data[ _]urodzenia | datum[ _]narozen[íi]
)"""
_DATE_WORDS = (
    "admiss", "aufnahmedatum", "aufnahmetag", "behandlungsdatum", "ces", "consultation", "decesso",
    "defunci", "defuncion", "delsedatum", "dimissione", "dselsdato", "entlassungsdatum", "entlassungstag",
    "fallecimiento", "fecha", "fodelsedatum", "fodselsdato", "geb", "geboortedatum", "geboren",
    "geburtsdatum", "geburtstag", "hospitalisation", "il", "le", "nacida", "nacido", "naissance",
    "narozen", "nascida", "nascido", "nascimento", "nascita", "operationsdatum", "opnamedatum",
    "overlijdensdatum", "ricovero", "sortie", "sterbedatum", "todesdatum", "todestag", "urodzenia",
    "verstorben",
)  # fmt: skip
_IS = rf"{JOINT} (?:\b(?:ist|lautet|est|es|è|é)\s{{1,4}})?"

ABROAD_RULES: tuple[Rule, ...] = (
    Rule(
        name="number-labelled-abroad",
        reason="Record, insurance, account, passport and telephone numbers, labelled in other languages.",
        find=matching(rf"(?i: (?<![^\W_]) {_NUMBERED} {_IS} (?P<secret>{NUMBER}) )", is_number),
        words=_NUMBER_WORDS,
        digits=3,
        leaks=(
            "Versichertennummer: «A123456780»",
            "numéro de sécurité sociale est «1 84 12 76 451 089 46»",
            '"Führerschein": "«B072RRE2I55»"',
            "historia clínica «55-10422» no encontrada",
            "codice_fiscale='«RSSMRA85T10A562S»'",
        ),
        benign=("numero de intentos: 300", "Telefon ist kaputt", "num: 4711"),
    ),
    Rule(
        name="date-labelled-abroad",
        reason="Dates of birth, admission, discharge and death, labelled in other languages.",
        find=matching(rf"(?i: (?<![^\W_]) {_DATED} {_IS} (?P<secret>{DATE}) )"),
        words=_DATE_WORDS,
        digits=1,
        leaks=(
            "Geburtsdatum: «02.12.1979»",
            "née le «2 décembre 1979» à Lyon",
            "{'fecha_de_nacimiento': '«2 de diciembre de 1979»'}",
            "nato il «02/12/1979»",
        ),
        benign=("le 12 août", "data il 3"),
    ),
)
