"""Microsoft's Secure Boot certificates of 2023, and which of 2011 each one replaces.

Those of 2011 expired in 2026: what is signed with the new ones does not start if only the old ones
are trusted, and only the owner of the new key exchange key can sign further updates. Firmware
packages of distributions may still have only the old ones. The certificates are Microsoft's, as
published for makers of firmware; a test holds them against those in virt-firmware.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MICROSOFT_2023", "SecureBootKey"]


@dataclass(frozen=True)
class SecureBootKey:
    """A certificate that belongs in a variable."""

    variable: str
    """`KEK` (may change db and dbx) or `db` (what may start)."""
    name: str
    """The common name of its subject."""
    replaces_sha256: str
    """The certificate (DER) that it replaces: if the owner has removed that one, this one is not
    added.
    """
    certificate: str
    """DER, in Base64."""


MICROSOFT_2023 = (
    SecureBootKey(
        "KEK",
        "Microsoft Corporation KEK 2K CA 2023",
        "a1117f516a32cefcba3f2d1ace10a87972fd6bbe8fe0d0b996e09e65d802a503",
        "MIIFsjCCA5qgAwIBAgITMwAAABMUFrhhbYKCSwAAAAAAEzANBgkqhkiG9w0BAQsFADBaMQswCQYDVQQG"
        "EwJVUzEeMBwGA1UEChMVTWljcm9zb2Z0IENvcnBvcmF0aW9uMSswKQYDVQQDEyJNaWNyb3NvZnQgUlNB"
        "IERldmljZXMgUm9vdCBDQSAyMDIxMB4XDTIzMDMwMjIwMjEzNVoXDTM4MDMwMjIwMzEzNVowXDELMAkG"
        "A1UEBhMCVVMxHjAcBgNVBAoTFU1pY3Jvc29mdCBDb3Jwb3JhdGlvbjEtMCsGA1UEAxMkTWljcm9zb2Z0"
        "IENvcnBvcmF0aW9uIEtFSyAySyBDQSAyMDIzMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"
        "416Ii3MswwrE6fXOgS3xD/EmNTfRSVNxsVuTUq/hFd/eizm9r0xldVPl2goymC8zJrYrvpSZn+zawo4F"
        "NJITD2O/dKJyqCl+nzIhKQhZxHfEKpJMh7YDN+ua4sPJtEghw2GU6hdRsecU4iRjLtXyxqXyol4facZR"
        "Dacp+1IKm+OI6Gj/u/qSaa/EFv9d5V/g3+xmVQthwqw7IG7ftA3rK8jQwjROgpY57vExhQQ979Z2+8PK"
        "wdWMLwsQKJtImrAQFKTZlOVoW81u53rsvKBJuKlT2E0vsnvI2ryy5/yrcBB3lUVJ/a3SPxfLZpryfTbd"
        "CiziwIchLZPbCJbS6FxU4QIDAQABo4IBbTCCAWkwDgYDVR0PAQH/BAQDAgGGMBAGCSsGAQQBgjcVAQQD"
        "AgEAMB0GA1UdDgQWBBTgq3K8lj7/uGabfRBaQz5cQlSHXzAZBgkrBgEEAYI3FAIEDB4KAFMAdQBiAEMA"
        "QTAPBgNVHRMBAf8EBTADAQH/MB8GA1UdIwQYMBaAFIREhgYAmD8sqrPFifOsLsnmnQkDMGUGA1UdHwRe"
        "MFwwWqBYoFaGVGh0dHA6Ly93d3cubWljcm9zb2Z0LmNvbS9wa2lvcHMvY3JsL01pY3Jvc29mdCUyMFJT"
        "QSUyMERldmljZXMlMjBSb290JTIwQ0ElMjAyMDIxLmNybDByBggrBgEFBQcBAQRmMGQwYgYIKwYBBQUH"
        "MAKGVmh0dHA6Ly93d3cubWljcm9zb2Z0LmNvbS9wa2lvcHMvY2VydHMvTWljcm9zb2Z0JTIwUlNBJTIw"
        "RGV2aWNlcyUyMFJvb3QlMjBDQSUyMDIwMjEuY3J0MA0GCSqGSIb3DQEBCwUAA4ICAQCFAgYS+meuTzmp"
        "uDTcXSp4GXs47pyCjxviPD0yCl6/WAbnb/iNGKgbhPWbyq2LCEQOJo0s2F9uIyUH+ltMJi52MUMubujI"
        "McFK0vICt6bxdeSW7QbiypV4RKgzdtQrTde83Ic7q00prZaJt9XCj6tGw12z/e2lnvV2tyuF/5ihn2sc"
        "mz737g4Xo/02L+HNKJgcQJkmygONpjXq0gqnixauIQEAHicPtw6yQjFWLub4juoMNPBO33AwaQTRz9Oc"
        "ZEZvzCHNy+8FMrsIptifRThdTtKckonpc+R6CDUeT6bCums+tx9UNEn6tHrL2qAfWYErKvaIJrD6bPLr"
        "wdiuQeFv/L8T6G4U5+fHA4tAmRA4Bm1wvQHI3o1WHTgPTyOoJUDeuygtQ6+kvCCDtQb5BSGfO7l5DXBr"
        "U8B1whsQE7Pkbwmoz9G3DnFct8mP5RzwE1XZk7muXT/KC7BZakVKw+HjJ3gNFoH8WC2xQboYDc/w76sI"
        "Hk/4/Mb9S90d7zAlUDmj3/4/ufrrlpfQzfkEJvsNSBkI2OGTwVDHbm3Y0GuOlXJkUMntVYluwUuiBtQy"
        "taltZQF68VJXGAUwXLgoZhG3evBxToZhYHptVsdbCT6i79QOnpLTH5n2nbEdeHhr/+gqBK94Zz7wKgun"
        "4F0B6YeZNTCQ7ddFa5zM5qLk5hen3Q==",
    ),
    SecureBootKey(
        "db",
        "Windows UEFI CA 2023",
        "e8e95f0733a55e8bad7be0a1413ee23c51fcea64b3c8fa6a786935fddcc71961",
        "MIIFqjCCA5KgAwIBAgITMwAAABqIi5gAViKEwQAAAAAAGjANBgkqhkiG9w0BAQsFADCBiDELMAkGA1UE"
        "BhMCVVMxEzARBgNVBAgTCldhc2hpbmd0b24xEDAOBgNVBAcTB1JlZG1vbmQxHjAcBgNVBAoTFU1pY3Jv"
        "c29mdCBDb3Jwb3JhdGlvbjEyMDAGA1UEAxMpTWljcm9zb2Z0IFJvb3QgQ2VydGlmaWNhdGUgQXV0aG9y"
        "aXR5IDIwMTAwHhcNMjMwNjEzMTg1ODI5WhcNMzUwNjEzMTkwODI5WjBMMQswCQYDVQQGEwJVUzEeMBwG"
        "A1UEChMVTWljcm9zb2Z0IENvcnBvcmF0aW9uMR0wGwYDVQQDExRXaW5kb3dzIFVFRkkgQ0EgMjAyMzCC"
        "ASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBALyyNdFUebSPzIEqbrMS1pOXMHw4XL95khkKDy0K"
        "/r/gqNgyP9Krb2+BwU0XaUXPhYAno3yzMcylp035Q9BaL9cYG9JYlgU5o5W3vN15waDPj+JTHismYqgc"
        "rjYeT6HfuRO6DCW7JGVnAaodQRC3NsFrLrVsENNOltCfKqHx7aEVC4KVxf9jihO1kjQeMV5hEa5dzPEQ"
        "5kx5yXKyNIqCVi2rD3zAT5OOWXVBhqwJEAnyUWVQtfUhsyY5jarEkbPcrGQjBs01Xw1CSZxPDc6Ag4JZ"
        "/t9LROFAyD1jts+0Qg05XNJCEAwIwnTrHNxuvAqsmLvM+h48p4MWxdsC2tmW32sCAwEAAaOCAUYwggFC"
        "MA4GA1UdDwEB/wQEAwIBhjAQBgkrBgEEAYI3FQEEAwIBADAdBgNVHQ4EFgQUrvxfu74FXY+NqlhUc0mU"
        "F6taUnIwGQYJKwYBBAGCNxQCBAweCgBTAHUAYgBDAEEwDwYDVR0TAQH/BAUwAwEB/zAfBgNVHSMEGDAW"
        "gBTV9lbLj+iiXGJo0T2UkFvXzpoYxDBWBgNVHR8ETzBNMEugSaBHhkVodHRwOi8vY3JsLm1pY3Jvc29m"
        "dC5jb20vcGtpL2NybC9wcm9kdWN0cy9NaWNSb29DZXJBdXRfMjAxMC0wNi0yMy5jcmwwWgYIKwYBBQUH"
        "AQEETjBMMEoGCCsGAQUFBzAChj5odHRwOi8vd3d3Lm1pY3Jvc29mdC5jb20vcGtpL2NlcnRzL01pY1Jv"
        "b0NlckF1dF8yMDEwLTA2LTIzLmNydDANBgkqhkiG9w0BAQsFAAOCAgEAn8m2/27hnDtV9v6LOd1hBG/Q"
        "rWPNF3ZKqEOJjfjG8oxekOHkaKUV7LjTYAxAVx/7XjVyYd6XMWx5oPUWrksc7QEM7/dXD0IwGGn4oaMu"
        "l5K4vhv+K4ZeQkIRj45wTZCn/QFj8mS/m+J7CIHPSfI3F9/x+XLTwx3DkEVN5oAGvf3lamnOs35OMVuE"
        "c6jocj8nNcl8IM4Am0/gTLQ2acv3NBERdBJ6qIwugWymUK0Z+qhGRW+xZ3PDa+NA6CppjyQQ4SlujRaI"
        "7o5/ZpMCb1ueBIzMgRytl1TxGC5+UpC8Ud4qDq5m6rxkbqCRZOQvEqi852u6xxubeRpkZvFDtNHDRiE4"
        "gXlM+vAxDdN5/3oSpR3Z3ayiD3GC95P/XKFhrmXyFIHteVqah+pge8uzT3U0yrqh76L2ooBFoYsngc3V"
        "dzg+yk7dKOpYusWgKd6GjIj8lSdR3avT0FsNd8dsj1XX1KIOW+Q0RhQWHeMc1m2ZrUzscXMvq86ytCne"
        "VTBTOToyi/DqnIgSOwVoGb/Ph1IQ+9YTYPNBZPQIV4HLnRGljvTlJ/WjOuzkPUq3zvmIDZ+9ym3SSrxY"
        "do4yBJRu3fTPbUdtwtdq3Idx6qS/72eXnLjHgDYqKlnJwAynRKBztYzPOFqu+LuGlfBErWZ6M+1x5EWH"
        "g+WnzqJA0HLSSAD6+Ro=",
    ),
    SecureBootKey(
        "db",
        "Microsoft UEFI CA 2023",
        "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
        "MIIFpDCCA4ygAwIBAgITMwAAABY2vzaJnxV1zAAAAAAAFjANBgkqhkiG9w0BAQsFADBaMQswCQYDVQQG"
        "EwJVUzEeMBwGA1UEChMVTWljcm9zb2Z0IENvcnBvcmF0aW9uMSswKQYDVQQDEyJNaWNyb3NvZnQgUlNB"
        "IERldmljZXMgUm9vdCBDQSAyMDIxMB4XDTIzMDYxMzE5MjE0N1oXDTM4MDYxMzE5MzE0N1owTjELMAkG"
        "A1UEBhMCVVMxHjAcBgNVBAoTFU1pY3Jvc29mdCBDb3Jwb3JhdGlvbjEfMB0GA1UEAxMWTWljcm9zb2Z0"
        "IFVFRkkgQ0EgMjAyMzCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBAL0iKq7vGjGFE3hRp5v9"
        "/HjRY7gam2P1EgbbS0E1am+r9WoEzJfPu9QICRphOg3ms6BG/wmt3oAk3BKA8l/ZFu3iQp3NL01hAmGK"
        "HEsdGGI5hpdxrT5/XXETS+kqAMG+1bcAn15lsiwa/3Tt6oPSOYkzNXN9oKL6QORmUFiq/IfoXCCDNOyr"
        "4gvFXz7/SCsRkSbvGG5XxZ8Yc5nv4Wp0K7svf1COHdo9drYE5cwuEMeDG4Oj5KUTE3FuM3ijqDzsSCZe"
        "x8ZeDYeaqsxVNIGtnZD15pZjpugHIBfIkx7SrqTcrn1Zv4heYgyuW/IpQFYdJkDehaatVtHPVUd2X5w5"
        "2wMCAwEAAaOCAW0wggFpMA4GA1UdDwEB/wQEAwIBhjAQBgkrBgEEAYI3FQEEAwIBADAdBgNVHQ4EFgQU"
        "gaprMkTJNbzg1mKK85gnQh4ySX0wGQYJKwYBBAGCNxQCBAweCgBTAHUAYgBDAEEwDwYDVR0TAQH/BAUw"
        "AwEB/zAfBgNVHSMEGDAWgBSERIYGAJg/LKqzxYnzrC7J5p0JAzBlBgNVHR8EXjBcMFqgWKBWhlRodHRw"
        "Oi8vd3d3Lm1pY3Jvc29mdC5jb20vcGtpb3BzL2NybC9NaWNyb3NvZnQlMjBSU0ElMjBEZXZpY2VzJTIw"
        "Um9vdCUyMENBJTIwMjAyMS5jcmwwcgYIKwYBBQUHAQEEZjBkMGIGCCsGAQUFBzAChlZodHRwOi8vd3d3"
        "Lm1pY3Jvc29mdC5jb20vcGtpb3BzL2NlcnRzL01pY3Jvc29mdCUyMFJTQSUyMERldmljZXMlMjBSb290"
        "JTIwQ0ElMjAyMDIxLmNydDANBgkqhkiG9w0BAQsFAAOCAgEAB2ATKlOHEg8a81oUlRfl2NeVVJuLDt2R"
        "pe3HXUdQk0W3lYhfFxlBY3a1grCoxZ2ZFTaJSb4Swmb7gwywgc7lpKvCoJrr9Qc8/iH4mtwZIQyeJCzR"
        "XKIWCkvr7EicsVt02wFkwuOAaqsazXcbajmat7pwRP9nlMWBBvDLgQSTJyGZvYeIFJwicQ4LL1y+uJBU"
        "fMAevCubo1YXS5fn438TNPqwNGub9rIt99h72CDTXKeVTE8q+eceaK/8bI/Ihj2fyNHvTRrI0fb9LXzj"
        "6EHB6ifB+44lhlqJphC+zuOPpXvEGqDodZD9IbDBo8UWI148zi/+jJi/CFz2ucWyPLbMyOx/0nd0y+3z"
        "lsmLjRwqiQ+jj73OKoVGmiOij0LAmdbqhR9hGb4WNbd1oJWAZQaH1As1yMSqDs6iCmNgyksrXCcEgq8+"
        "WIN6WthnPxBT9QwW9yZLioC5xR+g3tjTYUQURaf1q5qIF/23lFQCi+S3U6E+jZ5QgqgA4HiUG76zxDAf"
        "sg7b8EaQweZX/nzBcLIcS2TZEAMbNPtmz4JunkCoETfyZYshCa88k2I987yD3T9VkBXSMa8R5/jKoILh"
        "uc+zV5PHVTesf0G/H5Y88yaU+djSVSSKirZB8OAWwCOSjHEKTGoNGVX3OpySIZah1fgKjJ2/yevKiEL8"
        "S7Tv/ycwIWE=",
    ),
    SecureBootKey(
        "db",
        "Microsoft Option ROM UEFI CA 2023",
        "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
        "MIIFrzCCA5egAwIBAgITMwAAABez7E2PAeJwBQAAAAAAFzANBgkqhkiG9w0BAQsFADBaMQswCQYDVQQG"
        "EwJVUzEeMBwGA1UEChMVTWljcm9zb2Z0IENvcnBvcmF0aW9uMSswKQYDVQQDEyJNaWNyb3NvZnQgUlNB"
        "IERldmljZXMgUm9vdCBDQSAyMDIxMB4XDTIzMTAyNjE5MDIyMFoXDTM4MTAyNjE5MTIyMFowWTELMAkG"
        "A1UEBhMCVVMxHjAcBgNVBAoTFU1pY3Jvc29mdCBDb3Jwb3JhdGlvbjEqMCgGA1UEAxMhTWljcm9zb2Z0"
        "IE9wdGlvbiBST00gVUVGSSBDQSAyMDIzMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0wv+"
        "ic3Ntu7c5RqN3MohGg8iLwu1MoQ1wL5vcJNVtEfMSQPC/s+6MmVktzW9BDtEZC+g8t3hXbrnvTmavctL"
        "4YOqG+hvTkyRUkOlxFBVaPXarEiinOw1pwRWaBnisWLUkvSFPzShFWeHIW4fydg1Mrg9y1jKKUNUSn6L"
        "VXsjejq2nUMHBGuaa/TwIP/6pt+inknoVcV1iESspEE6A3y76ZPkbPHteSbHizL3WUklMQBnGAxn+0DF"
        "XXY9CYfCLYxfK1oeAQ8zr2UIkE/8ZFuco1zWUxtRAZ+Yz8RTxbHfs2hvRUvIRYXIHbie0XdxoNWid4fs"
        "Zy65hwZG3UFDQGpfLwIDAQABo4IBbTCCAWkwDgYDVR0PAQH/BAQDAgGGMBAGCSsGAQQBgjcVAQQDAgEA"
        "MB0GA1UdDgQWBBRRT7+Tf6RvtXvwevi+2Es7hksXETAZBgkrBgEEAYI3FAIEDB4KAFMAdQBiAEMAQTAP"
        "BgNVHRMBAf8EBTADAQH/MB8GA1UdIwQYMBaAFIREhgYAmD8sqrPFifOsLsnmnQkDMGUGA1UdHwReMFww"
        "WqBYoFaGVGh0dHA6Ly93d3cubWljcm9zb2Z0LmNvbS9wa2lvcHMvY3JsL01pY3Jvc29mdCUyMFJTQSUy"
        "MERldmljZXMlMjBSb290JTIwQ0ElMjAyMDIxLmNybDByBggrBgEFBQcBAQRmMGQwYgYIKwYBBQUHMAKG"
        "Vmh0dHA6Ly93d3cubWljcm9zb2Z0LmNvbS9wa2lvcHMvY2VydHMvTWljcm9zb2Z0JTIwUlNBJTIwRGV2"
        "aWNlcyUyMFJvb3QlMjBDQSUyMDIwMjEuY3J0MA0GCSqGSIb3DQEBCwUAA4ICAQBKS4D8cbGH3QaLJBDR"
        "dvgQ5GU0obuBCH1w1BUk+ZA7SG9uTiP+hVPsopkfieQ0vtCYr/H4LfNH0bUyZJ7ecsAXfoEgesFfkfVO"
        "OqZ7adnQ1vD6gGPFwERn04snYcHl3FGZbiPJKRj+Nb1FIawP+WDiD9FfcA+SK1hOz6xkLwlz7VAIyOGF"
        "c0AsMam0tiNLwBk7/RX408t0VM3au30EhZ9wFXX5t/RhS/7kn0UO9YLpxfN4u6pq4fe7hZIrr0u1J06a"
        "ySlvDsjSZGObXRQGzHh/5BLdluOcBELsF/qSIafe9WmPILJk8z8Vo1GvJ2+3YlevdBfsq7HuqFDvr4OC"
        "q2EEeT9JjEBWwDyv+ypaGR6q5i5nJCGsM/DXSosKJDAQplI+Hcj8kZyHG/qG4Z5r5QlhdaijOV/in2wO"
        "hSHmvXal6kWDaB4vNr/gaIpCzh+4jeFg5pOK7rpKrbNJTO6jA8mnooZxnIEBZ2kP3oBV1sDecoXARmDw"
        "zmAqiAiNnDDrqYtA82ElCeHhgjIEpSn4WewmtsjXI/AL02xjatov0tOlJZqaXqX9AqXsopCBaD49RY58"
        "BbIu6pkBRf0JMJQm10os/n2CRDNDVctaQ9KSkv5OR8ZJPzUbIZxq2oL8ZDf7J+r0MN9l7ND8UAE4auzc"
        "Ufb17psmzO5t/i9WDjroOCKOqg==",
    ),
)
