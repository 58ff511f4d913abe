*** Comments ***
Run with: renode-test firmware/emulation/drip.robot, after: make firmware BOARDS="nucleo_f446re nucleo_f446re_imu"
Written for Renode 1.16.1. Last run: not run.
The commands of the link are tested by tests/emulator, which starts Renode itself.

*** Settings ***
Suite Setup       Setup
Suite Teardown    Teardown
Test Teardown     Test Teardown
Resource          ${RENODEKEYWORDS}

*** Variables ***
${BANNER}         DRIP on nucleo_f446re
${IMAGES}         ${CURDIR}/../../build/firmware

*** Keywords ***
Create Board
    Execute Command           include @${CURDIR}/drip.resc
    Create Terminal Tester    sysbus.usart2    timeout=5
    Start Emulation

*** Test Cases ***
The Board Starts Without A Card
    Create Board
    Wait For Line On Uart     ${BANNER}

The Board Starts Again After A Reset
    Create Board
    Wait For Line On Uart     ${BANNER}
    Execute Command           machine Reset
    Wait For Line On Uart     ${BANNER}

The Image With A Motion Sensor Starts Beside One
    Execute Command           $bin=@${IMAGES}/nucleo_f446re_imu/firmware.elf
    Execute Command           include @${CURDIR}/drip.resc
    Execute Command           machine LoadPlatformDescription @${CURDIR}/imu.repl
    Create Terminal Tester    sysbus.usart2    timeout=5
    Start Emulation
    Wait For Line On Uart     ${BANNER}
